"""The MetaFormer and its parts. Importing this package loads no torch; `build.build_model` does."""
