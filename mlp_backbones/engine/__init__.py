"""From a config to a run of mmengine's runner."""
