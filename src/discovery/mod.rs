//! Where endpoints come from: a discovery turns what it sees into [`crate::pool::PoolEvent`]s for the pool's one writer.

pub mod file;
pub mod kubernetes;

pub use file::{DiscoveryError, FileDiscovery};
pub use kubernetes::KubernetesDiscovery;

use crate::plugin::{DiscoverySpec, PluginType};
use crate::pool::{PoolSpec, PoolWriter};
use tokio_util::sync::CancellationToken;

/// Tables of the plugin types that belong to discovery.
pub const TABLES: &[&[PluginType]] = &[file::TABLE];

/// Any discovery.
#[derive(Debug)]
pub enum Discovery {
    /// A file.
    File(FileDiscovery),
    /// A cluster.
    Kubernetes(KubernetesDiscovery),
}

impl Discovery {
    /// The discovery that `spec` describes, for the pool `pool`.
    pub fn new(spec: &DiscoverySpec, pool: PoolSpec) -> Self {
        match spec {
            DiscoverySpec::File { path, watch, policies } => {
                Self::File(FileDiscovery::new(path.clone(), *watch, pool, policies.clone()))
            }
        }
    }

    /// Delivers the first complete list where that is at hand. Call it before serving; an error means that there is
    /// nothing to serve with. A cluster is not waited for: its pool may come later.
    pub async fn load_once(&mut self, writer: &mut PoolWriter) -> Result<(), DiscoveryError> {
        match self {
            Self::File(file) => file.load_once(writer).await,
            Self::Kubernetes(_) => Ok(()),
        }
    }

    /// Follows changes until told to stop.
    pub async fn run(self, writer: PoolWriter, shutdown: CancellationToken) {
        match self {
            Self::File(file) => file.run(writer, shutdown).await,
            Self::Kubernetes(cluster) => cluster.run(writer, shutdown).await,
        }
    }
}
