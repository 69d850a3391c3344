"""Images and labels: in memory or read one by one."""
