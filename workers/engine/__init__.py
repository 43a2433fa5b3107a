"""Continuous batching on llama.cpp's low-level bindings; see docs/engine.md."""
