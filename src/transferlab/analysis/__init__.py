"""Judgement: reads records, writes verdicts, tables and the report. Never imports torch."""
