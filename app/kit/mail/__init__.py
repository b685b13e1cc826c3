"""Email: what a message is, the ledger of all mails, the SMTP conversation, where mail goes."""
