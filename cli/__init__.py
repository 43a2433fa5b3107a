"""Floor 5: the ``uptier`` command: parsing and printing only."""
