"""How a command runs in its process: flags, output, signals, the watchdog, files."""
