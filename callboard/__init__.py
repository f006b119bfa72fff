"""The command `callboard`: all parts on one machine, and the questions people ask them."""
