"""HubSpot's contacts as its API shows them: dated versions and v3, with its limits, its errors and its surprises."""
