"""The engine's commands, and the options that all commands share."""
