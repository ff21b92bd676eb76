//! The surroundings of a task: settings from the execution profile, functions by name, one memory pool, no disk.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use conun_types::{Failure, TaskEnvelope, profile};
use datafusion::{
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::{
        SessionState, SessionStateBuilder, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{MemoryLimit, MemoryPool, MemoryReservation},
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::SessionConfig,
};

use crate::{
    inputs::{InputsHandle, MemoryInputs, TaskInputs},
    object_store::{OnlyShards, ShardStore},
};

/// DataFusion's options under the execution profile.
static OPTIONS: LazyLock<ConfigOptions> = LazyLock::new(|| {
    let mut options = ConfigOptions::new();
    for (key, value) in profile::SETTINGS {
        #[expect(clippy::expect_used, reason = "the settings are constants; a test sets them all")]
        options.set(key, value).expect("the profile names settings that this build has");
    }
    options
});

/// Every function that a plan may name, by name and alias: DataFusion's, but for those that [`conun_functions`] replaces.
static FUNCTIONS: LazyLock<SessionState> = LazyLock::new(|| {
    let nothing = ShardStore::new(Arc::new(MemoryInputs::default()), &[]);
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(OnlyShards(Arc::new(nothing))));
    let functions = || {
        let session = SessionStateBuilder::new().with_config(session_config()).with_default_features();
        let mut state = session.with_runtime_env(runtime.build_arc()?).build();
        conun_functions::register_names(&mut state)?;
        Ok::<_, DataFusionError>(state)
    };
    #[expect(clippy::expect_used, reason = "a session state takes functions; every test of tasks relies on it")]
    functions().expect("a session takes functions")
});

/// The settings under which tasks run.
#[must_use]
pub fn session_config() -> SessionConfig {
    SessionConfig::from(OPTIONS.clone())
}

/// A context in which plans are decoded, scans too, and nothing can be read: for tests and for coordinators that inspect plans.
#[must_use]
pub fn bare_context() -> Arc<TaskContext> {
    FUNCTIONS.task_ctx()
}

/// The context of one task, and the pool whose exhaustion ends it.
pub(crate) fn task_context(
    envelope: &TaskEnvelope,
    inputs: Arc<dyn TaskInputs>,
) -> Result<(Arc<TaskContext>, Arc<ClassPool>), Failure> {
    let node = |e: DataFusionError| Failure::Node(e.strip_backtrace());
    let pool = Arc::new(ClassPool::new(envelope.memory.bytes()));
    let store = Arc::new(ShardStore::new(inputs.clone(), &envelope.shards));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool.clone())
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .with_object_store_registry(Arc::new(OnlyShards(store)))
        .build_arc()
        .map_err(node)?;
    let config = session_config().with_extension(Arc::new(InputsHandle(inputs)));
    let context = TaskContext::new(
        None,
        "conun".into(),
        config,
        FUNCTIONS.scalar_functions().clone(),
        FUNCTIONS.higher_order_functions().clone(),
        FUNCTIONS.aggregate_functions().clone(),
        FUNCTIONS.window_functions().clone(),
        runtime,
    );
    Ok((Arc::new(context), pool))
}

/// The memory pool of a task's class. It remembers that it refused: some operators recover from a refusal by emitting
/// early, which would make the output depend on what else was reserved at that moment.
#[derive(Debug)]
pub(crate) struct ClassPool {
    size: usize,
    used: AtomicUsize,
    exceeded: AtomicBool,
}

impl ClassPool {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, used: AtomicUsize::new(0), exceeded: AtomicBool::new(false) }
    }

    /// Whether a reservation was ever refused.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }
}

impl fmt::Display for ClassPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "class pool of {} bytes", self.size)
    }
}

impl MemoryPool for ClassPool {
    fn name(&self) -> &str {
        "class"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        let fits = |used: usize| used.checked_add(additional).filter(|used| *used <= self.size);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.exceeded.store(true, Ordering::Relaxed);
                Err(DataFusionError::ResourcesExhausted("memory class exceeded".into()))
            }
        }
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.size)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn every_setting_of_the_profile_exists() {
        assert_eq!(session_config().batch_size(), profile::BATCH_ROWS);
        assert!(!session_config().options().optimizer.enable_round_robin_repartition);
    }

    #[test]
    fn the_profile_names_the_functions() {
        assert_eq!(profile::FUNCTIONS, conun_functions::VERSION);
        let (ours, plain) = (bare_context(), datafusion::prelude::SessionContext::new().task_ctx());
        for name in ["sum", "mean", "stddev_samp", "regr_r2"] {
            assert_ne!(ours.aggregate_functions()[name], plain.aggregate_functions()[name], "{name}");
        }
        for name in ["sin", "pow"] {
            assert_ne!(ours.scalar_functions()[name], plain.scalar_functions()[name], "{name}");
        }
    }

    #[test]
    fn the_pool_remembers_a_refusal() {
        let pool: Arc<ClassPool> = Arc::new(ClassPool::new(100));
        let shared: Arc<dyn MemoryPool> = pool.clone();
        let reservation = MemoryConsumer::new("test").register(&shared);
        assert!(reservation.try_grow(100).is_ok() && !pool.exceeded());
        assert!(reservation.try_grow(1).is_err() && pool.exceeded());
        reservation.free();
        assert_eq!(pool.reserved(), 0);
        assert!(pool.exceeded(), "it stays exceeded");
    }
}
