"""batch.*: invocations of reports and exports, their versions beside each other, cutover by share, golden samples."""
