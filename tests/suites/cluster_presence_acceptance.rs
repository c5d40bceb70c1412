//! Presence from end to end on a Redis Cluster: the scenarios of `presence_acceptance`.

use streamgate_e2e::place::Place;

use super::presence_acceptance::{members_hop, node_is_killed, redis_is_stopped};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_members_of_a_killed_process_leave_once_within_two_leases_and_nobody_else_does() {
    node_is_killed(Place::cluster().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_while_all_servers_are_stopped_for_three_leases_whatever_they_elect_afterwards() {
    redis_is_stopped(Place::cluster().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_members_hop_between_four_nodes_for_thirty_seconds_and_every_view_is_exact() {
    members_hop(Place::cluster().await).await;
}
