"""One file per recipe and size: `get_config(arg)` returns everything a run depends on."""
