"""The drop directory: mail of local programs on its way to the relay; standard library only."""

from typing import TYPE_CHECKING

from twisted_sendmail.lazy_names import lazy_names

__all__ = [
    "DEFAULT_SPOOL",
    "DIRECTORY_MODE",
    "MAX_ENVELOPE",
    "SETTINGS",
    "WAKEUP_FIFO",
    "BadFile",
    "DropDirectory",
    "DropEnvelope",
    "DropFile",
    "DropFileError",
    "DropReader",
    "DropRecipient",
    "DropScan",
    "DropSettings",
    "DropTotals",
    "FileKey",
    "WaitingFile",
    "directory_fault",
    "durability_warning",
    "new_name",
    "read_settings",
    "wake_relay",
    "write_settings",
]

if TYPE_CHECKING:
    from twisted_sendmail.drop.directory import (
        DIRECTORY_MODE,
        BadFile,
        DropDirectory,
        DropScan,
        DropTotals,
        FileKey,
        WaitingFile,
        directory_fault,
    )
    from twisted_sendmail.drop.file_format import (
        MAX_ENVELOPE,
        DropEnvelope,
        DropFile,
        DropFileError,
        DropReader,
        DropRecipient,
        new_name,
    )
    from twisted_sendmail.drop.file_system import durability_warning
    from twisted_sendmail.drop.settings import (
        DEFAULT_SPOOL,
        SETTINGS,
        WAKEUP_FIFO,
        DropSettings,
        read_settings,
        wake_relay,
        write_settings,
    )
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "directory": """
                DIRECTORY_MODE BadFile DropDirectory DropScan DropTotals FileKey WaitingFile
                directory_fault""",
            "file_format": """
                MAX_ENVELOPE DropEnvelope DropFile DropFileError DropReader DropRecipient new_name""",
            "file_system": "durability_warning",
            "settings": """
                DEFAULT_SPOOL SETTINGS WAKEUP_FIFO DropSettings read_settings wake_relay
                write_settings""",
        },
    )
