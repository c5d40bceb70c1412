//! Which backend gets what. The first route that matches wins, in the order of the file.

use super::BackendRoute;
use crate::channel::{glob, overlaps};

/// Method of the route of the authentication hook; its channel is empty.
pub const AUTHENTICATE: &str = "$authenticate";
/// Method of the routes of the hook that decides on subscriptions.
pub const SUBSCRIBE: &str = "subscribe";
/// Method of the routes of the hook that decides on publishes.
pub const PUBLISH: &str = "publish";

/// Routes of all backends; each names its backend by number.
#[derive(Debug, Default)]
pub(super) struct Routes(Vec<(BackendRoute, usize)>);

impl Routes {
    /// Adds the routes of the backend `number`.
    pub fn add(&mut self, number: usize, routes: &[BackendRoute]) {
        self.0.extend(routes.iter().map(|route| (route.clone(), number)));
    }

    /// Who answers a client's call. Routes that name a hook are not for calls, and what starts with `$` is never one: a
    /// client must not reach a hook by calling it.
    pub fn rpc(&self, channel: &str, method: &str) -> Option<usize> {
        if method.starts_with('$') {
            return None;
        }
        self.find(|route| {
            !is_hook(&route.method) && glob(&route.channel, channel) && glob(&route.method, method)
        })
    }

    /// Who tells who a client is.
    pub fn authenticate(&self) -> Option<usize> {
        self.find(|route| route.channel.is_empty() && route.method == AUTHENTICATE)
    }

    /// Who decides on `method`, [`SUBSCRIBE`] or [`PUBLISH`], for a channel or pattern. The route must name it: a
    /// backend that answers all calls need not know of it. A pattern is decided on by whom any of its channels is.
    pub fn decides(&self, method: &str, channel: &str) -> Option<usize> {
        self.find(|route| route.method == method && overlaps(&route.channel, channel))
    }

    /// The first that decides on any right.
    pub fn decides_anything(&self) -> Option<usize> {
        self.find(|route| route.method == SUBSCRIBE || route.method == PUBLISH)
    }

    fn find(&self, wanted: impl Fn(&BackendRoute) -> bool) -> Option<usize> {
        self.0.iter().find(|(route, _)| wanted(route)).map(|(_, number)| *number)
    }
}

fn is_hook(method: &str) -> bool {
    method == SUBSCRIBE || method == PUBLISH || method.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, &str)]) -> Routes {
        let mut routes = Routes::default();
        for (number, (channel, method)) in list.iter().enumerate() {
            routes.add(number, &[BackendRoute { channel: (*channel).into(), method: (*method).into() }]);
        }
        routes
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let routes = routes(&[("chat.*", "*"), ("chat.**", "get.*"), ("**", "**")]);
        assert_eq!(routes.rpc("chat.1", "send"), Some(0));
        assert_eq!(routes.rpc("chat.1.2", "get.x"), Some(1));
        assert_eq!(routes.rpc("other", "a.b"), Some(2));
        assert_eq!(super::Routes::default().rpc("a", "b"), None);
    }

    #[test]
    fn hooks_are_reached_only_by_routes_that_name_them_and_never_by_a_call() {
        let all = routes(&[("**", "**")]);
        assert_eq!(
            (all.authenticate(), all.decides(SUBSCRIBE, "a"), all.decides(PUBLISH, "a")),
            (None, None, None)
        );
        assert_eq!(all.rpc("a", "subscribe"), Some(0));
        assert_eq!(all.rpc("", "$authenticate"), None);
        let hooks = routes(&[("", "$authenticate"), ("room.*", "subscribe"), ("**", "publish")]);
        assert_eq!(hooks.authenticate(), Some(0));
        assert_eq!((hooks.decides(SUBSCRIBE, "room.1"), hooks.decides(SUBSCRIBE, "room")), (Some(1), None));
        assert_eq!(hooks.decides(PUBLISH, "anything.else"), Some(2));
        assert_eq!((hooks.decides(SUBSCRIBE, "**"), hooks.decides(SUBSCRIBE, "rooms.*")), (Some(1), None));
        for method in ["subscribe", "publish", "$authenticate"] {
            assert_eq!(hooks.rpc("room.1", method), None, "{method}");
        }
    }
}
