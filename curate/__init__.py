"""curate: web-scale dataset curation for vision-language models."""
