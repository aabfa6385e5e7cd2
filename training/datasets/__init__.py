"""Dataset files: reading, checking, merging, and other projects' layouts."""
