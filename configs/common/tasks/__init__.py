"""The six tasks, each complete in its file. A variant takes one over whole and changes what it wants to differ."""
