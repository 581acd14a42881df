//! Set-up checks, locks, the background server, the list of live mounts.
