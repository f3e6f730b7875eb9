"""Outside systems for demo and tests: a HubSpot that can misbehave on demand, and a receiver of signed webhooks."""
