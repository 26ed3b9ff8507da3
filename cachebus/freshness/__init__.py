"""The freshness rule: scopes and clocks, the ledger of invalidations, the journal that every process follows."""
