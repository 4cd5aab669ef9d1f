"""What is asked of a slide's file before its pixels are read, in a process of its own."""
