"""The passes of the pipeline, one per file; their order lives in compile/pipeline.py."""
