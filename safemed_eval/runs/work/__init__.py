"""The units of work of a run, and the classes that do them with a loaded model."""
