//! E4: the limits of an agent's tools hold over several instances, and the load test finds out if they
//! do not.

use integration_tests::AgentLoad;

#[tokio::test(flavor = "multi_thread")]
async fn three_instances_count_together() {
    let load = AgentLoad::run(false).await;
    println!("{}", load.table());
    assert_eq!(load.faults, [""; 0]);
    assert_eq!(load.admitted, load.expected);
    assert_eq!((load.lost, load.exceeded, load.unavailable), (0, 0, 0));
    // Both limits were reached, or nothing was tested.
    assert!(load.denied_by_turn > 0 && load.denied_by_session > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_counts_alone_is_found_out() {
    let load = AgentLoad::run(true).await;
    assert!(!load.faults.is_empty());
    assert!(load.exceeded > 0 && load.lost > 0, "{}", load.table());
}
