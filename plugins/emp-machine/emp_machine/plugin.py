"""What emp-machine brings to emp-core. Cheap to import: commands are imported when they are used."""

__all__: list[str] = []
