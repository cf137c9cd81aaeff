"""The command line: it parses words, asks the resident process, and shows the answer."""
