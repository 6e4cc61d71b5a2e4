// Package durable makes sessions that wait for the disk at the same moment share its flushes.
// delivery/maildir and queue hand to it what they wrote; when Flush returns nil, a power cut
// loses none of it. Replace, Keeper and ReadLines write and read the small files in which other
// rooms remember things.
//
// A letter is written under its temporary name, renamed to its final one, and then one syncfs(2)
// of the file system carries data, names and directories for everybody who came meanwhile. There
// is no delay when alone: the first to arrive flushes at once, those who arrive during a flush
// are flushed together by the next. On XFS and ext4 whoever is alone flushes with an fsync of its
// file, which brings its names along and leaves other programs' data out; on ext4 without a journal
// only a letter with one name is flushed so. Where syncfs cannot be trusted, or has become slow
// because another program fills the same file system, each letter costs an fsync of the file and one
// of each directory instead, run side by side.
//
// The choice was made by BenchmarkDesigns, letters of 10 KiB a second with 1 / 10 / 50 writers, on two
// cores in November 2026, ext4 first, then XFS in a loop device, then tmpfs for what is not the disk:
//
//	fsync, rename, fsync of the directory   2300 /  3600 /  5100    920 / 3000 /  5200   44,000 / 36,000 / 47,000
//	rename, fsync                           3950 /  8400 /  9100   1840 / 6600 /  9600   63,000 / 53,000 / 53,000
//	rename, fsync, fsync of the directory   2750 /  6400 /  5800   2130 / 4600 /  7900   50,000 / 48,000 / 53,000
//	rename, syncfs for each                 3450 /  6200 /  6950   2020 / 3200 /  3700   56,000 / 61,000 / 56,000
//	rename, Flusher                         4190 / 10900 / 18200   2200 / 7300 / 14300   60,000 / 61,000 / 55,000
//
// An append-only log written before the maildir would win a fifth more for one writer and write
// every letter twice; bodies inside bbolt cost the queue its way to be rebuilt.
//
// Crash reasoning. A letter is promised (250) only after Flush. Before it, kill -9 leaves at
// worst a whole letter that was not promised: a duplicate when its sender tries again. A power cut
// before the flush ends may leave the final name with less data than it should have: the journal
// may hold the rename before the data is written. Its name or record carries its size, so
// the sweep at the first start after a boot finds and removes it; nobody was promised it.
package durable
