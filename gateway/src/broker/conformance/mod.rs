//! The one suite that every broker passes.
//!
//! Owns: the cases that pin down what [`Broker`] promises, and a [`Recorder`] that takes deliveries. Never does: look
//! into an implementation; whatever only one broker knows is tested beside it.
//!
//! Invariants: a case panics if and only if a promise is broken; each case gets fresh nodes and channel names of its
//! own, so that one storage serves them all. Real time passes, because storage keeps its own clock.
#![expect(clippy::unwrap_used, reason = "a case fails by panicking, as tests do")]

mod catalogue;
mod context;
mod delivery;
mod expiry;
mod history;
mod idempotency;
mod names;
mod occupancy;
mod patterns;
mod peers;
mod presence;
mod queues;
mod races;
mod recorder;
mod recovery;
mod resets;
mod sessions;
mod starts;
mod work;

use std::{any::Any, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use context::{Context, Listener, policies};
pub use recorder::Recorder;

use self::queues::{
    dead as queue_dead, groups as queue_groups, keys as queue_keys, limits as queue_limits,
    listing as queue_listing, settling as queue_settling, sharing as queue_sharing, times as queue_times,
};

use super::Broker;
use crate::policy::Policies;

/// How long a case may take before it counts as hung.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a broker brings to be tested.
pub trait Harness: Send + Sync {
    /// Starts two nodes on the same storage, ready for work; a broker of one node gives the same one twice. Called
    /// once for each case, with [`policies`]; the suite shuts the nodes down. All cases may share one storage.
    fn start(&self, policies: Policies) -> BoxFuture<'_, [Arc<dyn Broker>; 2]>;
}

/// A case; panics if the broker breaks a promise.
pub type CaseFn = fn(Context) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($case)), |context| Box::pin($module::$case(context)))),+),*]
    };
}

/// Every case by its name.
pub const CASES: &[(&str, CaseFn)] = cases! {
    delivery:
        acks_tell_the_delivered_positions_and_offsets_are_contiguous,
        twenty_publishers_on_two_nodes_are_seen_in_one_order,
        publishes_are_stored_in_the_order_of_the_calls,
        a_publish_goes_on_when_its_future_is_dropped,
        interest_by_name_and_by_patterns_delivers_once,
        subscribing_twice_is_subscribing_once,
        unsubscribe_stops_deliveries,
        calls_for_one_sink_take_effect_in_their_order,
        every_one_of_many_sinks_is_served,
        transient_publications_are_delivered_and_not_kept,
        without_history_there_are_no_positions;
    races:
        a_live_start_has_no_hole,
        a_recovery_under_publishes_has_no_hole_and_no_repeat,
        a_pattern_recovery_under_births_has_no_hole_and_no_repeat,
        many_recoveries_of_one_channel_agree;
    recovery:
        a_cursor_replays_exactly_what_came_after,
        nothing_missed_replays_nothing,
        long_replays_are_complete,
        a_cursor_of_an_empty_channel_replays_everything,
        a_cursor_of_a_channel_that_never_existed_missed_nothing,
        a_trimmed_head_is_reported_and_the_rest_replayed,
        a_trimmed_head_is_reported_to_a_cursor_of_an_empty_channel;
    resets:
        an_expired_history_is_reported_and_its_successor_is_a_new_epoch,
        a_history_that_expired_after_an_empty_cursor_is_reported,
        a_removed_history_is_reported_and_its_successor_is_a_new_epoch,
        a_history_that_was_born_and_removed_unseen_is_reported_to_a_cursor_from_before,
        removing_what_does_not_exist_is_no_error,
        unknown_epochs_are_reset_and_replay_everything,
        an_offset_past_the_end_is_reset;
    starts:
        from_the_start,
        from_the_last_entries,
        from_a_time,
        from_any_point_of_an_empty_channel_is_nothing;
    history:
        limits_cut_and_say_so,
        since_reads_what_came_after,
        reverse_reads_newest_first,
        a_since_that_is_no_longer_kept_is_truncated,
        more_than_the_configured_size_is_never_read,
        nothing_older_than_the_configured_age_is_read,
        a_channel_without_history_has_an_empty_page,
        times_never_go_back;
    catalogue:
        channels_with_a_history_are_listed_page_by_page,
        patterns_choose_among_them,
        channels_without_a_history_are_not_listed;
    expiry:
        what_is_over_is_in_no_page_and_leaves_its_offset_out,
        pages_are_filled_with_what_comes_behind_what_is_over,
        deliveries_and_replays_tell_what_is_over_by_the_brokers_clock,
        transient_publications_have_a_time_to_live;
    idempotency:
        two_hundred_retries_through_two_nodes_are_one_publication,
        keys_are_scoped_by_user_and_channel,
        the_window_ends,
        keys_work_without_history;
    patterns:
        stars_match_what_they_say,
        patterns_that_start_with_a_star_match,
        a_pattern_ends_when_it_is_unsubscribed,
        recovery_replays_by_cursor_and_includes_new_channels,
        recovery_reports_gaps_by_channel,
        a_pattern_starts_from_any_point,
        positions_of_a_pattern_are_bounded;
    presence:
        joins_and_leaves_are_told_once_to_every_watcher,
        a_former_owner_ends_nothing,
        a_query_counts_all_and_lists_as_many_as_asked_for,
        a_query_sees_what_its_node_asked_for_before,
        a_join_goes_on_when_its_future_is_dropped,
        patterns_watch_every_channel_they_match,
        a_watcher_by_name_and_by_pattern_is_told_once,
        who_watches_no_more_is_told_nothing_more,
        what_the_policy_keeps_quiet_is_listed_and_not_told,
        odd_names_of_channels_and_sessions_are_ordinary,
        members_that_hop_between_nodes_stay;
    sessions:
        any_node_loads_what_was_saved_last,
        records_expire,
        who_resumes_later_has_the_session_whoever_saves_first,
        a_record_that_storage_lost_is_kept_anew_by_whoever_has_the_session;
    peers:
        letters_reach_the_nodes_they_are_for,
        nodes_show_their_cards,
        a_session_is_found_where_it_was_saved_last,
        revocations_are_listed_until_their_time_is_over;
    work:
        items_come_in_their_order_until_they_are_finished,
        items_are_read_beside_those_that_are_not_finished,
        a_lane_that_is_given_up_goes_to_another_node_with_what_is_not_finished,
        a_full_lane_takes_no_more_and_says_so,
        queues_are_separate;
    occupancy:
        the_first_and_the_last_subscriber_are_recorded_once_somebody_wants_to_know;
    queue_sharing:
        each_job_goes_to_one_consumer_only,
        consumers_of_both_nodes_share,
        jobs_published_before_any_consumer_wait_for_one,
        credit_bounds_what_is_unsettled_and_an_ack_brings_the_next,
        jobs_are_first_handed_out_in_the_order_of_their_publishes,
        who_stopped_gets_nothing_more;
    queue_settling:
        a_second_ack_is_told_apart,
        the_delivery_of_another_session_is_told_apart,
        a_job_given_back_comes_again_with_the_next_attempt,
        a_former_delivery_changes_nothing,
        each_delivery_is_answered_in_its_place,
        a_delivery_is_settled_through_any_node,
        what_is_released_goes_to_another_at_once,
        who_stopped_may_still_settle_through_any_node;
    queue_times:
        what_is_not_acked_in_time_is_handed_out_again,
        what_is_out_of_time_counts_no_more_as_credit,
        who_needs_more_time_gets_it,
        an_ack_is_late_only_once_somebody_else_has_the_job,
        what_is_not_released_is_handed_out_at_its_deadline,
        a_delayed_job_is_not_handed_out_before_its_time,
        a_job_given_back_with_a_delay_waits,
        delayed_jobs_come_in_the_order_of_their_times;
    queue_keys:
        jobs_with_one_key_are_handled_one_at_a_time,
        one_key_is_in_order_over_consumers_of_two_nodes,
        a_job_given_back_with_a_delay_holds_up_its_key,
        a_job_out_of_time_holds_up_its_key,
        when_the_first_dies_the_next_goes,
        a_delayed_job_holds_up_its_key,
        when_the_first_is_purged_the_next_goes;
    queue_dead:
        a_job_out_of_attempts_is_dead_until_it_is_redriven,
        a_job_dies_of_its_last_timeout,
        only_so_many_dead_are_kept_and_the_oldest_go,
        the_dead_are_published_to_the_dead_letter_channel,
        each_shelf_is_looked_at_and_purged;
    queue_limits:
        a_full_queue_refuses_until_a_job_is_settled,
        the_dead_do_not_count,
        a_full_group_refuses_for_everybody,
        a_repeated_publish_enqueues_once;
    queue_groups:
        a_group_on_an_ordinary_channel_takes_nothing_from_subscribers,
        the_backlog_of_a_group_waits_while_it_has_no_consumer,
        each_group_gets_a_job_of_its_own,
        a_queue_channel_has_a_group_that_nobody_began_and_takes_others,
        a_queue_channel_keeps_no_history_and_delivers_to_no_subscriber,
        a_group_that_is_removed_is_gone_with_its_jobs,
        a_removed_default_group_is_there_again_with_the_next_publish;
    queue_listing:
        queues_are_listed_page_by_page,
        a_target_chooses_among_queues,
        statistics_count_every_job_where_it_is;
    names:
        payloads_arrive_byte_by_byte,
        odd_names_are_ordinary,
        names_that_contain_each_other_are_separate;
};

/// Runs one case on fresh nodes.
///
/// # Errors
/// Why the case failed, with its name.
pub async fn run(harness: &dyn Harness, name: &str, case: CaseFn) -> Result<(), String> {
    let nodes = harness.start(policies()).await;
    let task = tokio::spawn(tokio::time::timeout(CASE_TIMEOUT, case(Context::new(nodes.clone()))));
    let result = match task.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(format!("{name}: not done after {CASE_TIMEOUT:?}")),
        Err(error) if error.is_panic() => Err(format!("{name}: {}", text(&*error.into_panic()))),
        Err(error) => Err(format!("{name}: {error}")),
    };
    for node in nodes {
        node.shutdown().await;
    }
    result
}

/// Runs every case, one after the other.
///
/// # Errors
/// What failed, one line for each case.
pub async fn run_all(harness: &dyn Harness) -> Result<(), String> {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        if let Err(failure) = run(harness, name, *case).await {
            failed.push(failure);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("{} of {} cases failed:\n{}", failed.len(), CASES.len(), failed.join("\n")))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}
