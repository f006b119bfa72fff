"""What Callboard takes: time, memory, and how long a departure lasts.  Each module is a program."""
