//! The tables by which cores count: routes and methods, and which pairs of them exist.
use crate::api::{Method, Route};
use crate::telemetry::{MethodIndex, RouteIndex};

/// Values of the metric label `route`, by the number of the route.
pub static ROUTE_LABELS: [&str; Route::ALL.len()] = {
    let mut labels = [""; Route::ALL.len()];
    let mut index = 0;
    while index < labels.len() {
        labels[index] = Route::ALL[index].as_str();
        index += 1;
    }
    labels
};

/// Values of the metric label `method`, by the number of the method.
pub static METHOD_LABELS: [&str; Method::ALL.len()] = {
    let mut labels = [""; Method::ALL.len()];
    let mut index = 0;
    while index < labels.len() {
        labels[index] = Method::ALL[index].as_str();
        index += 1;
    }
    labels
};

/// The pairs that are served, so that they are shown from the start.
pub static SERVED: [(RouteIndex, MethodIndex); 17] = [
    post(Route::Issue),
    post(Route::Transfer),
    post(Route::Burn),
    post(Route::Hold),
    post(Route::Capture),
    post(Route::Release),
    get(Route::Balance),
    get(Route::Seq),
    get(Route::Tx),
    get(Route::Proof),
    get(Route::LedgerRoot),
    get(Route::Consistency),
    get(Route::Entries),
    get(Route::Totals),
    get(Route::Healthz),
    get(Route::Readyz),
    get(Route::Version),
];

const fn post(route: Route) -> (RouteIndex, MethodIndex) {
    (RouteIndex(route as u8), MethodIndex(Method::Post as u8))
}

const fn get(route: Route) -> (RouteIndex, MethodIndex) {
    (RouteIndex(route as u8), MethodIndex(Method::Get as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_tables() {
        for (index, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!((route as usize, ROUTE_LABELS[index]), (index, route.as_str()));
        }
        for (index, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!((method as usize, METHOD_LABELS[index]), (index, method.as_str()));
        }
    }
}
