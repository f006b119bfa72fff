"""What Callboard promises while something of its own is broken, measured on real processes."""
