"""What every process of Callboard needs to be a process: settings, logs, life cycle, admin side."""
