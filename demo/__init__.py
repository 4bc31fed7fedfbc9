"""A folder of drawn pictures to try Glimpse on."""
