"""Counts, the paper's tables beside ours, and figures; nothing else imports it."""
