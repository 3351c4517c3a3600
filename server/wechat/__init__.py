"""WeChat Pay, API v3: signatures, sealed notifications, the five calls, logging in, and which channel pays."""
