"""OpenAI's API as a service of emp-core. The plugin is found through its entry point; nothing of it has to be imported."""

__all__: list[str] = []
