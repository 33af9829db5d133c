"""What ``mmengine.hub.get_model`` asks of every package that it takes configs from."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Do nothing: registries import their classes by themselves, and a config names its framework."""
