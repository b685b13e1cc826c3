"""Your pages: every module in this folder that has a blueprint `bp` is found by itself."""
