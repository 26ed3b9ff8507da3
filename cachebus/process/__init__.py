"""What worker and gateway have in common: signals, supervision, logs, ports, children."""
