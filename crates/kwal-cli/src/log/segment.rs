//! A segment file of a broker (`00000000000000000000.log`).

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::Path,
};

use kwal_protocol::record::{BatchHeader, Batches};

use super::{Item, Unreadable};
use crate::exit::{Failure, chain};

/// Reads a file, one batch at a time.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    name: String,
    input: BufReader<File>,
    /// The end of what was read, in bytes.
    position: u64,
    /// Whether nothing more can be found, since a length cannot be believed.
    is_lost: bool,
}

/// The largest batch: above what brokers are set to, far below the memory of a machine.
const MAX_BATCH: usize = 256 << 20;

impl SegmentFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => {
                Ok(Self { name, input: BufReader::with_capacity(1 << 20, file), position: 0, is_lost: false })
            }
            Err(error) => Err(Failure::local(format!("{name} cannot be read"), &error)),
        }
    }

    /// Returns what comes next; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, Failure> {
        self.read().map_err(|error| Failure::local(format!("{} cannot be read", self.name), &error))
    }

    fn read(&mut self) -> io::Result<Option<Item>> {
        if self.is_lost {
            return Ok(None);
        }
        let position = self.position;
        let mut bytes = Vec::new();
        self.take(BatchHeader::LOG_OVERHEAD, &mut bytes)?;
        let Some(length) = bytes.get(8..).and_then(|rest| rest.first_chunk()) else {
            return Ok(torn(position, bytes.len()));
        };
        let length = i32::from_be_bytes(*length);
        let size = usize::try_from(length).unwrap_or_default();
        // Brokers preallocate segments, with zeros.
        if bytes.iter().all(|byte| *byte == 0) {
            self.is_lost = true;
            let rest = io::copy(&mut self.input, &mut io::sink())?;
            return Ok(Some(Item::Torn { position, bytes: rest + bytes.len() as u64 }));
        }
        if size > MAX_BATCH {
            self.is_lost = true;
            let problem = format!("its length field says {length} bytes: what follows cannot be read");
            return Ok(Some(unreadable(&bytes, position, problem)));
        }
        self.take(size, &mut bytes)?;
        let read = bytes.len();
        let header = bytes.clone();
        match Batches::new(bytes.into()).next() {
            Some(Ok(batch)) => Ok(Some(Item::Batch { batch, position: Some(position) })),
            Some(Err(error)) => {
                // What is too short for a batch says nothing of where the next one begins.
                self.is_lost = read < BatchHeader::LEN;
                Ok(Some(unreadable(&header, position, chain(&error.kind))))
            }
            None => Ok(torn(position, read)),
        }
    }

    /// Appends up to so many bytes. Memory grows with what is there.
    fn take(&mut self, len: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.position += self.input.by_ref().take(len as u64).read_to_end(bytes)? as u64;
        Ok(())
    }
}

fn torn(position: u64, bytes: usize) -> Option<Item> {
    (bytes > 0).then_some(Item::Torn { position, bytes: bytes as u64 })
}

fn unreadable(bytes: &[u8], position: u64, problem: String) -> Item {
    let header = BatchHeader::parse(bytes).ok().filter(|header| header.magic == BatchHeader::MAGIC);
    let offsets = header.map(|header| header.base_offset..header.next_offset());
    Item::Unreadable(Unreadable { offsets, header, position: Some(position), problem })
}
