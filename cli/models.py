"""STUB."""
import typer
app = typer.Typer()
