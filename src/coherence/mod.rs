//! coherence
/// placeholder
#[derive(Clone, Debug, Default)]
pub struct Scopes;
