"""What each tab of the page shows, one module a tab: bounded, gathered when somebody looks."""
