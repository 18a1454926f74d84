//! A place in memory for what an archive brings.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use capsa_image::archive::Spool;
use capsa_image::{Error, Result};
use capsa_oci::Digest;

/// More than any input here should bring.
const ROOM: u64 = 128 << 20;

/// Bytes by digest.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<HashMap<Digest, Arc<[u8]>>>);

impl Shelf {
    fn get(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        self.0.lock().ok()?.get(digest).cloned()
    }
}

impl Spool for Shelf {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.get(digest).map(|bytes| bytes.len() as u64))
    }

    fn put(&self, content: &mut dyn Read) -> Result<(Digest, u64)> {
        let mut bytes = Vec::new();
        content.take(ROOM).read_to_end(&mut bytes).map_err(Error::Read)?;
        let digest = Digest::sha256(&bytes);
        let size = bytes.len() as u64;
        if let Ok(mut shelf) = self.0.lock() {
            shelf.insert(digest.clone(), bytes.into());
        }
        Ok((digest, size))
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send + '_>> {
        let bytes = self.get(digest).ok_or_else(|| Error::Missing(digest.to_string()))?;
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }
}
