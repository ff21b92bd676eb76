// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base} from "./Base.sol";
import {ConunToken} from "../src/ConunToken.sol";
import {Disputes} from "../src/Disputes.sol";
import {JobEscrow} from "../src/JobEscrow.sol";
import {MerkleSum} from "../src/MerkleSum.sol";
import {ProviderRegistry} from "../src/ProviderRegistry.sol";

/// What holds for all values, not only for those that a test tries: halmos proves each `check_` function with every argument
/// a symbol. Forge only compiles them.
contract PropertiesTest is Base {
    address private constant REPORTER = address(0x4E904);

    function setUp() public override {
        vm.warp(1_000_000);
        token = new ConunToken(address(this), 1_000_000 ether);
        // Halmos numbers new contracts one after the other.
        uint160 first = uint160(address(token));
        registry = new ProviderRegistry(token, address(first + 2), address(first + 3));
        escrow = new JobEscrow(token, registry, admin);
        disputes = new Disputes(escrow, 100 ether);
        peopleAreNoContracts(first);
        token.transfer(client, 100_000 ether);
        token.transfer(operator, 1_000 ether);
        vm.prank(client);
        token.approve(address(escrow), type(uint256).max);
        vm.prank(operator);
        token.approve(address(registry), type(uint256).max);
    }

    /// To halmos the address of a key can be any: it might be a contract's, or another's.
    function peopleAreNoContracts(uint160 first) private view {
        address[3] memory people = [client, spender, node];
        for (uint256 i = 0; i < people.length; i++) {
            for (uint160 c = 0; c < 4; c++) {
                vm.assume(people[i] != address(first + c));
            }
            vm.assume(people[i] != address(this) && people[i] != operator && people[i] != address(0));
        }
        vm.assume(client != spender && client != node && spender != node);
    }

    /// To halmos a signature may be any that recovers; signers make those that the contracts take, of the lower half.
    function signed(uint256 key, bytes32 digest) internal pure override returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        vm.assume(uint256(s) <= 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0);
        return abi.encodePacked(r, s, v);
    }

    // The token.

    function check_a_transfer_makes_and_loses_nothing(address to, uint256 amount) public {
        vm.assume(to != address(0) && to != address(this));
        uint256 both = token.balanceOf(address(this)) + token.balanceOf(to);
        uint256 before = token.balanceOf(to);
        token.transfer(to, amount);
        assert(token.balanceOf(address(this)) + token.balanceOf(to) == both);
        assert(token.balanceOf(to) - before == amount);
    }

    function check_burning_lessens_the_supply_by_as_much(uint256 amount) public {
        uint256 supply = token.totalSupply();
        token.burn(amount);
        assert(token.totalSupply() == supply - amount);
    }

    // The registry.

    function check_stake_is_kept_to_the_last_token(uint128 amount, uint128 out) public {
        vm.startPrank(operator);
        registry.stake(amount);
        registry.unstake(out);
        vm.stopPrank();
        ProviderRegistry.Operator memory state = registry.operatorOf(operator);
        assert(uint256(state.stake) + state.unbonding == amount);
        assert(state.unbonding == out);
        assert(token.balanceOf(address(registry)) == amount);
    }

    function check_stake_never_leaves_early(uint128 amount, uint64 later_) public {
        vm.startPrank(operator);
        registry.stake(amount);
        registry.unstake(amount);
        uint256 since = block.timestamp;
        vm.warp(later_);
        registry.withdraw();
        vm.stopPrank();
        assert(later_ >= since + registry.UNBONDING());
    }

    /// Of 64 bits: the solver takes minutes to divide larger numbers by a hundred. Fuzzing has the large ones.
    function check_a_penalty_takes_what_there_is_and_all_of_it_goes(uint64 amount, uint64 out, uint64 penalty) public {
        adopt();
        vm.startPrank(operator);
        registry.stake(amount);
        registry.unstake(out);
        vm.stopPrank();
        (uint256 supply, uint256 before) = (token.totalSupply(), token.balanceOf(REPORTER));
        vm.prank(address(disputes));
        uint256 taken = registry.slash(node, penalty, REPORTER);
        ProviderRegistry.Operator memory state = registry.operatorOf(operator);
        assert(taken == (penalty < amount ? penalty : amount));
        assert(uint256(state.stake) + state.unbonding == amount - taken);
        assert(token.balanceOf(address(registry)) == amount - taken);
        assert(token.balanceOf(REPORTER) - before + supply - token.totalSupply() == taken);
    }

    function check_nobody_but_disputes_slashes(address caller, address which, uint256 amount) public {
        vm.assume(caller != address(disputes));
        vm.prank(caller);
        (bool ok,) = address(registry).call(abi.encodeCall(ProviderRegistry.slash, (which, amount, caller)));
        assert(!ok);
    }

    function check_nobody_but_the_escrow_notes_what_was_paid(address caller, address which, uint256 amount) public {
        vm.assume(caller != address(escrow));
        vm.prank(caller);
        (bool ok,) = address(registry).call(abi.encodeCall(ProviderRegistry.notePaid, (which, amount)));
        assert(!ok);
    }

    function check_nobody_adopts_a_node_that_signed_nothing(address caller, bytes32 r, bytes32 s, uint8 v) public {
        bytes32 digest = typed(address(registry), keccak256(abi.encode(registry.CONSENT_TYPEHASH(), caller)));
        vm.assume(ecrecover(digest, v, r, s) != node);
        vm.prank(caller);
        bytes memory call = abi.encodeCall(ProviderRegistry.delegate, (node, abi.encodePacked(r, s, v)));
        (bool ok,) = address(registry).call(call);
        assert(!ok);
    }

    // The escrow.

    function check_a_deposit_counts_as_much_as_it_brings(uint128 deposit, uint128 more) public {
        vm.startPrank(client);
        escrow.open(JOB, deposit, spender, 0);
        escrow.topUp(JOB, more);
        vm.stopPrank();
        assert(token.balanceOf(address(escrow)) == uint256(deposit) + more);
        assert(escrow.jobOf(JOB).deposit == uint256(deposit) + more);
    }

    function check_only_the_client_or_its_spender_signs(uint128 amount, bytes32 r, bytes32 s, uint8 v) public {
        openJob();
        address signer = ecrecover(voucher(node, amount), v, r, s);
        escrow.redeem(JOB, node, amount, abi.encodePacked(r, s, v));
        assert(signer == client || signer == spender);
        assert(amount <= (signer == client ? DEPOSIT : DEPOSIT / 2));
        assert(escrow.accountOf(JOB, node).earned == amount && escrow.jobOf(JOB).earned == amount);
    }

    function check_two_vouchers_pay_the_larger(uint128 a, uint128 b) public {
        openJob();
        escrow.redeem(JOB, node, a, signed(CLIENT_KEY, voucher(node, a)));
        escrow.redeem(JOB, node, b, signed(CLIENT_KEY, voucher(node, b)));
        assert(b > a);
        assert(escrow.jobOf(JOB).earned == b);
        escrow.draw(JOB, node);
        assert(token.balanceOf(node) == b);
        assert(token.balanceOf(address(escrow)) == DEPOSIT - b);
    }

    function check_a_settlement_never_lessens_what_was_earned(uint128 a, uint128 b) public {
        openJob();
        escrow.redeem(JOB, node, a, signed(CLIENT_KEY, voucher(node, a)));
        settleOne(CLIENT_KEY, 0, b);
        assert(escrow.accountOf(JOB, node).earned == (a > b ? a : b));
        assert(escrow.jobOf(JOB).earned == (a > b ? a : b));
    }

    function check_a_refund_leaves_what_was_earned(uint128 amount, uint64 later_) public {
        openJob();
        escrow.redeem(JOB, node, amount, signed(CLIENT_KEY, voucher(node, amount)));
        vm.startPrank(client);
        escrow.askRefund(JOB);
        uint256 since = block.timestamp;
        vm.warp(later_);
        escrow.refund(JOB);
        vm.stopPrank();
        assert(later_ >= since + escrow.CHALLENGE_WINDOW());
        assert(token.balanceOf(address(escrow)) == amount);
        assert(escrow.jobOf(JOB).deposit == amount);
    }

    function check_nobody_else_takes_or_spends_a_clients_money(address caller, address to, uint128 cap) public {
        vm.assume(caller != client);
        openJob();
        vm.startPrank(caller);
        (bool asked,) = address(escrow).call(abi.encodeCall(JobEscrow.askRefund, (JOB)));
        (bool refunded,) = address(escrow).call(abi.encodeCall(JobEscrow.refund, (JOB)));
        (bool named,) = address(escrow).call(abi.encodeCall(JobEscrow.setSpender, (JOB, to, cap)));
        vm.stopPrank();
        assert(!asked && !refunded && !named);
    }

    function check_a_replaced_spender_keeps_its_cap_for_a_while(address to, uint128 cap, uint64 later_) public {
        vm.assume(later_ < 1_000_000 + escrow.CHALLENGE_WINDOW());
        openJob();
        vm.prank(client);
        escrow.setSpender(JOB, to, cap);
        vm.warp(later_);
        escrow.redeem(JOB, node, DEPOSIT / 2, signed(SPENDER_KEY, voucher(node, DEPOSIT / 2)));
        assert(escrow.accountOf(JOB, node).earned == DEPOSIT / 2);
    }

    // Merkle sums.

    function rootWith(MerkleSum.Node memory node_, uint256 index, uint32 count, MerkleSum.Node[] calldata siblings)
        external
        pure
        returns (bytes32, uint128)
    {
        return MerkleSum.rootWith(node_, index, count, siblings);
    }

    function two(bytes32 a, uint64 x, bytes32 b, uint64 y) private pure returns (Disputes.Leaf[] memory leaves) {
        leaves = new Disputes.Leaf[](2);
        (leaves[0], leaves[1]) = (Disputes.Leaf(a, x), Disputes.Leaf(b, y));
    }

    function check_a_root_binds_the_sum_and_each_leaf_has_its_proof(bytes32 a, uint64 x, bytes32 b, uint64 y)
        public
        view
    {
        (bytes32 root, uint128 total) = disputes.receiptsRoot(two(a, x, b, y));
        assert(total == uint256(x) + y);
        MerkleSum.Node[] memory path = new MerkleSum.Node[](1);
        path[0] = leaf(b, y);
        (bytes32 left, uint128 sum) = this.rootWith(leaf(a, x), 0, 2, path);
        assert(left == root && sum == total);
        path[0] = leaf(a, x);
        (left, sum) = this.rootWith(leaf(b, y), 1, 2, path);
        assert(left == root && sum == total);
    }

    function check_other_leaves_have_other_roots(bytes32 a, uint64 x, bytes32 b, uint64 y) public view {
        (bytes32 one_,) = disputes.receiptsRoot(two(a, x, "b", 1));
        (bytes32 other,) = disputes.receiptsRoot(two(b, y, "b", 1));
        assert((one_ == other) == (a == b && x == y));
    }

    function check_no_proof_shows_a_leaf_that_is_not_there(bytes32 item, uint64 units, bytes32 hash, uint128 sum)
        public
        view
    {
        (bytes32 root,) = disputes.receiptsRoot(two("a", 3, "b", 4));
        MerkleSum.Node[] memory path = new MerkleSum.Node[](1);
        path[0] = MerkleSum.Node(hash, sum);
        (bytes32 found,) = this.rootWith(leaf(item, units), 0, 2, path);
        assert(found != root || (item == "a" && units == 3 && sum == 4));
    }

    function check_records_add_up(uint256 a, uint256 b, uint96 x, uint96 y) public view {
        bytes memory first = abi.encodePacked(a, uint160(b), x);
        (, uint128 total) = disputes.recordsRoot(bytes.concat(first, abi.encodePacked(b, uint160(a), y)));
        assert(total == uint256(x) + y);
    }

    // Disputes.

    /// With signatures of the node itself, and a stake to lose: only the words can save it.
    function check_one_receipt_is_no_equivocation(bytes32 order, uint64 units) public {
        adopt();
        Disputes.SignedReceipt memory signed_ = by(NODE_KEY, receiptOf(node, order, units));
        (bool ok,) = address(disputes).call(abi.encodeCall(Disputes.proveEquivocation, (signed_, signed_)));
        assert(!ok);
    }

    function check_two_receipts_are_an_equivocation(bytes32 order, uint64 a, uint64 b) public {
        vm.assume(a != b);
        adopt();
        bytes memory call = abi.encodeCall(
            Disputes.proveEquivocation,
            (by(NODE_KEY, receiptOf(node, order, a)), by(NODE_KEY, receiptOf(node, order, b)))
        );
        (bool ok,) = address(disputes).call(call);
        assert(ok);
    }

    function check_a_claim_is_an_offence_where_it_is_not_what_was_signed(bytes32 order, uint64 units, uint64 claimed)
        public
    {
        // A claim's total has 64 bits.
        vm.assume(claimed < type(uint64).max);
        adopt();
        Disputes.SignedClaim memory claim = by(NODE_KEY, claimOf(node, 1, two(order, claimed, "b", 1)));
        Disputes.SignedReceipt memory receipt = by(NODE_KEY, receiptOf(node, order, units));
        MerkleSum.Node[] memory path = new MerkleSum.Node[](1);
        path[0] = leaf("b", 1);
        bytes memory call =
            abi.encodeCall(Disputes.proveBadLeaf, (claim, Disputes.Inclusion(0, claimed, path), receipt));
        (bool ok,) = address(disputes).call(call);
        assert(ok == (units != claimed));
    }

    function adopt() private {
        bytes memory signature = signed(NODE_KEY, consent(operator));
        vm.prank(operator);
        registry.delegate(node, signature);
    }
}
