//! The one object store of a task: `conun://shards/<cid>`, read-only, over the task's inputs.
//!
//! No other store is registered: `file://` and the rest are unknown to a task.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{Cid, InputShard};
use datafusion::{
    error::{DataFusionError, Result as PlanResult},
    execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl},
};
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use url::Url;

use crate::inputs::{Fault, TaskInputs};

/// Shards that a scan keeps at hand: one for each side of a few nested joins. The runner caches more.
const OPEN_SHARDS: usize = 4;

/// Where plans find shards: the location of a file in it is its content id.
pub const SHARDS_URL: &str = "conun://shards/";

/// [`SHARDS_URL`] as scans hold it.
///
/// # Errors
/// Never: the address is a constant.
pub fn shards_url() -> PlanResult<ObjectStoreUrl> {
    ObjectStoreUrl::parse(SHARDS_URL)
}

/// The shards that an envelope lists.
pub(crate) struct ShardStore {
    inputs: Arc<dyn TaskInputs>,
    sizes: HashMap<Cid, u64>,
    open: Mutex<VecDeque<(Cid, Bytes)>>,
}

impl ShardStore {
    pub(crate) fn new(inputs: Arc<dyn TaskInputs>, shards: &[InputShard]) -> Self {
        let sizes = shards.iter().map(|shard| (shard.cid, shard.volume.bytes)).collect();
        Self { inputs, sizes, open: Mutex::default() }
    }

    fn meta(&self, location: &Path) -> Result<(Cid, ObjectMeta)> {
        let cid = location.as_ref().parse::<Cid>().ok();
        let found = cid.and_then(|cid| Some((cid, *self.sizes.get(&cid)?)));
        let (cid, size) = found.ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "the task does not list this shard".into(),
        })?;
        // Modification times would differ between replicas; content does not change.
        let last_modified = Default::default();
        Ok((cid, ObjectMeta { location: location.clone(), last_modified, size, e_tag: None, version: None }))
    }

    fn load(&self, cid: Cid) -> Result<Bytes> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = open.iter().find(|(other, _)| *other == cid) {
            return Ok(bytes.clone());
        }
        let fault = |failure| Error::Generic { store: "conun", source: Box::new(Fault(failure)) };
        let bytes = self.inputs.load(&cid).map_err(fault)?;
        if open.len() >= OPEN_SHARDS {
            open.pop_front();
        }
        open.push_back((cid, bytes.clone()));
        Ok(bytes)
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Result<Bytes> {
    let outside = || Error::Generic { store: "conun", source: format!("no bytes {range:?} in this shard").into() };
    let start = usize::try_from(range.start).map_err(|_| outside())?;
    let end = usize::try_from(range.end).map_err(|_| outside())?;
    if start > end || end > bytes.len() {
        return Err(outside());
    }
    Ok(bytes.slice(start..end))
}

fn read_only() -> Error {
    Error::NotSupported { source: "shards are read-only".into() }
}

impl fmt::Display for ShardStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conun shards")
    }
}

impl fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardStore({} shards)", self.sizes.len())
    }
}

#[async_trait]
impl ObjectStore for ShardStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (cid, meta) = self.meta(location)?;
        let whole = 0..meta.size;
        let range = match &options.range {
            Some(range) => {
                range.as_range(meta.size).map_err(|e| Error::Generic { store: "conun", source: Box::new(e) })?
            }
            None => whole,
        };
        let bytes = if options.head { Bytes::new() } else { slice(&self.load(cid)?, &range)? };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes = self.load(self.meta(location)?.0)?;
        ranges.iter().map(|range| slice(&bytes, range)).collect()
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(read_only()) }).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { Err(read_only()) }).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(read_only())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

/// A registry with our store and no way to add another.
#[derive(Debug)]
pub(crate) struct OnlyShards(pub(crate) Arc<ShardStore>);

impl ObjectStoreRegistry for OnlyShards {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> PlanResult<Arc<dyn ObjectStore>> {
        if url.scheme() == "conun" && url.host_str() == Some("shards") {
            return Ok(self.0.clone());
        }
        Err(DataFusionError::Plan(format!("{}:// is out of reach of a task", url.scheme())))
    }
}

#[cfg(test)]
mod tests {
    use conun_types::Volume;
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::inputs::MemoryInputs;

    fn store() -> (ShardStore, Path) {
        let bytes = Bytes::from_static(b"0123456789");
        let cid = Cid::raw(&bytes);
        let shard = InputShard { cid, volume: Volume { rows: 1, bytes: 10 } };
        let path = Path::from(cid.to_string());
        (ShardStore::new(Arc::new(MemoryInputs::new([bytes])), &[shard]), path)
    }

    #[tokio::test]
    async fn reads_listed_shards_only() -> Result<()> {
        let (store, path) = store();
        assert_eq!(store.get(&path).await?.bytes().await?, "0123456789");
        assert_eq!(store.get_range(&path, 2..5).await?, "234");
        assert_eq!(store.get_ranges(&path, &[0..1, 9..10]).await?, ["0", "9"]);
        assert!(store.get_ranges(&path, &[0..1, 5..11]).await.is_err());
        assert_eq!(store.head(&path).await?.size, 10);
        let other = Path::from(Cid::raw(b"other").to_string());
        assert!(matches!(store.get(&other).await, Err(Error::NotFound { .. })));
        assert!(store.get(&Path::from("etc/passwd")).await.is_err());
        assert!(store.put(&path, PutPayload::new()).await.is_err());
        Ok(())
    }

    #[test]
    fn no_other_store_is_reachable() -> Result<(), url::ParseError> {
        let registry = OnlyShards(Arc::new(store().0));
        assert!(registry.get_store(&Url::parse(SHARDS_URL)?).is_ok());
        for url in ["file:///etc", "s3://bucket", "conun://other/"] {
            assert!(registry.get_store(&Url::parse(url)?).is_err(), "{url}");
        }
        Ok(())
    }
}
