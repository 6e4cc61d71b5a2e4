// Package durable makes sessions that wait for the disk at the same moment share its flushes.
// delivery/maildir and queue hand to it what they wrote; when Flush returns nil, a power cut
// loses none of it.
//
// A letter is written under its temporary name, renamed to its final one, and then one syncfs(2)
// of the file system carries data, names and directories for everybody who came meanwhile. There
// is no delay when alone: the first to arrive flushes at once, those who arrive during a flush
// are flushed together by the next. On ext4 and XFS whoever is alone flushes with an fsync of its
// file, which brings its names along and leaves other programs' data out. Where syncfs cannot be
// trusted, or has become slow because another program fills the same file system, each letter
// costs an fsync of the file and one of each directory instead, run side by side.
//
// Crash reasoning. A letter is promised (250) only after Flush. Before it, kill -9 leaves at
// worst a whole letter that was not promised: a duplicate when its sender tries again. A power cut
// before the flush ends may leave the final name with less data than it should have: the journal
// may hold the rename before the data is written. Its name or record carries its size, so
// the sweep at the first start after a boot finds and removes it; nobody was promised it.
package durable
