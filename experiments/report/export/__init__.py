"""Files to take away: the records as CSV, charts as SVG and PNG, the README's table and picture."""
