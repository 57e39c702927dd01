//! A router that can say which paths it has.

use axum::{Router, routing::MethodRouter};

use super::ApiState;

/// Paths, and what answers on them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) router: Router<ApiState>,
    pub(super) paths: Vec<&'static str>,
}

impl Routes {
    pub(super) fn route(mut self, path: &'static str, methods: MethodRouter<ApiState>) -> Self {
        self.paths.push(path);
        Self { router: self.router.route(path, methods), paths: self.paths }
    }
}
