"""The engine: what the public rooms are built of. Nothing here is for users."""

__all__: list[str] = []
