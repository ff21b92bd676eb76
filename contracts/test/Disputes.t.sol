// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Base} from "./Base.sol";
import {Disputes} from "../src/Disputes.sol";
import {MerkleSum} from "../src/MerkleSum.sol";
import {ProviderRegistry} from "../src/ProviderRegistry.sol";

/// Roots and hashes as other code computes them; the expected ones come from a Python script of 20 lines.
contract CommitmentTest is Base {
    function roots(uint256 count) private view returns (bytes32 root) {
        Disputes.Leaf[] memory leaves = new Disputes.Leaf[](count);
        for (uint256 i = 0; i < count; i++) {
            // The byte i, 32 times.
            leaves[i] = Disputes.Leaf(bytes32(i * (type(uint256).max / 255)), uint64(10 + i));
        }
        uint128 total;
        (root, total) = disputes.receiptsRoot(leaves);
        equal(total, count == 0 ? 0 : 10 * count + count * (count - 1) / 2, "total");
    }

    function test_roots_are_the_agreed_ones() public view {
        require(roots(0) == 0, "none");
        require(roots(1) == 0xb2882c5bf950b8e8a7c64fdb7773781fb4c353f7316361caad1b3d6f49aad106, "1");
        require(roots(2) == 0x75c192b78731cda44dca5c3c66a2c5f877d44cb210001de3b1946cac329a32f6, "2");
        require(roots(3) == 0x9927b3bcfd4bf85b8ea4675128dbe35e8bf9822afe0bd0666eea63f77b0afa17, "3");
        require(roots(5) == 0x16e96ddd4abe4c2b41add04eb5ed124565f1b5b88e02b19c6d4eabc4feccdf05, "5");
        require(roots(6) == 0x916709b8288a9d7455cbcbabe4946a7e7068f213876e9b800c6cb05af9a81977, "6");
        require(roots(7) == 0x2aa57ebd906386bd587935912f0df280215634bf7c13a41da8bf068a74eb05ba, "7");
    }

    function test_records_add_up_to_a_root() public {
        bytes memory records;
        for (uint256 i = 0; i < 3; i++) {
            bytes memory who = abi.encodePacked(hex"000102030405060708090a0b0c0d0e0f", uint32(3), _repeated());
            records = bytes.concat(records, who, abi.encodePacked(uint64(77 + i), uint32(9), uint96(2 ** 95 + i)));
        }
        (bytes32 root, uint128 total) = disputes.recordsRoot(records);
        require(root == 0x09ac3023027251f03f312507b785a32b9a1c5fc6a056117ab7ad171f1c3e8dff, "root");
        equal(total, 3 * 2 ** 95 + 3, "total");
        (root, total) = disputes.recordsRoot("");
        require(root == 0 && total == 0, "none");
        vm.expectRevert(abi.encodeWithSelector(Disputes.BadRecords.selector, 63));
        disputes.recordsRoot(new bytes(63));
    }

    function _repeated() private pure returns (address) {
        return address(uint160(type(uint160).max / 255 * 0xAB));
    }

    function test_what_is_signed_hashes_as_agreed() public view {
        address who = address(0x1234);
        Disputes.TaskOrder memory order = Disputes.TaskOrder("account", "job", "cid", who, 5, 6, 7);
        Disputes.TaskReceipt memory receipt =
            Disputes.TaskReceipt("order", who, "profile", "inputs", "outputs", 1, 2, 3);
        Disputes.StageClaim memory claim = Disputes.StageClaim("account", "job", 5, who, 6, 7, 8, "root");
        bytes32 expected = 0xcbd1e8155868b1cd78c8c360927e75be1002deb9665efd461a77318a56790e96;
        require(disputes.orderHash(order) == expected, "order");
        expected = 0x0ffe28facf5f7f1ec464b2633c4f0aa9b5d80ae1347547192b5e517cf56ea86c;
        require(disputes.receiptHash(receipt) == expected, "receipt");
        expected = 0xd80e7523cdd2b9501b775fc20495c24f1dc127e72957566fa476e76f094e822c;
        require(disputes.claimHash(claim) == expected, "claim");
    }
}

contract DisputesTest is Base {
    /// Leaves of orders 1 to `count`, with units 11 and so on.
    function leaves(uint256 count) private pure returns (Disputes.Leaf[] memory made) {
        made = new Disputes.Leaf[](count);
        for (uint256 i = 0; i < count; i++) {
            made[i] = Disputes.Leaf(bytes32(i + 1), uint64(11 + i));
        }
    }

    function claimed(uint32 stage, Disputes.Leaf[] memory which) private view returns (Disputes.SignedClaim memory) {
        return by(NODE_KEY, claimOf(node, stage, which));
    }

    function receipt(bytes32 order, uint64 units) private view returns (Disputes.SignedReceipt memory) {
        return by(NODE_KEY, receiptOf(node, order, units));
    }

    function refuses(bytes memory why) private {
        vm.expectRevert(why);
    }

    function convictedAlready(Disputes.Offence kind) private view returns (bytes memory) {
        return abi.encodeWithSelector(Disputes.AlreadyConvicted.selector, bytes32(uint256(1)), node, kind);
    }

    function test_two_receipts_for_one_order_cost_stake_once() public {
        (uint256 supply, uint256 before) = (token.totalSupply(), token.balanceOf(address(this)));
        Disputes.SignedReceipt memory a = receipt(bytes32(uint256(1)), 1);
        Disputes.SignedReceipt memory b = receipt(bytes32(uint256(1)), 2);
        disputes.proveEquivocation(a, b);
        equal(registry.operatorOf(operator).stake, 400 ether, "the penalty");
        equal(token.balanceOf(address(this)) - before, 10 ether, "a tenth for the proof");
        equal(supply - token.totalSupply(), 90 ether, "the rest is burned");
        equal(registry.operatorOf(operator).convictions, 1, "on record");
        require(disputes.convicted(bytes32(uint256(1)), node, Disputes.Offence.Equivocation), "noted");
        refuses(convictedAlready(Disputes.Offence.Equivocation));
        disputes.proveEquivocation(b, a);
    }

    function test_what_proves_no_equivocation_is_refused() public {
        Disputes.SignedReceipt memory a = receipt("order", 1);
        refuses(abi.encodeWithSelector(Disputes.NoOffence.selector));
        disputes.proveEquivocation(a, a);
        Disputes.SignedReceipt memory b = by(CLIENT_KEY, receiptOf(node, "order", 2));
        refuses(abi.encodeWithSelector(Disputes.BadSignature.selector, client));
        disputes.proveEquivocation(a, b);
        refuses(abi.encodeWithSelector(Disputes.BadSignature.selector, client));
        disputes.proveEquivocation(b, a);
        b.signature = "";
        refuses(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 0));
        disputes.proveEquivocation(a, b);
        b = receipt("other order", 2);
        refuses(abi.encodeWithSelector(Disputes.NoOffence.selector));
        disputes.proveEquivocation(a, b);
        b = by(CLIENT_KEY, receiptOf(client, "order", 2));
        refuses(abi.encodeWithSelector(Disputes.NoOffence.selector));
        disputes.proveEquivocation(a, b);
        refuses(abi.encodeWithSelector(ProviderRegistry.OnlyDisputes.selector));
        registry.slash(node, 1, address(this));
        equal(registry.operatorOf(operator).stake, 500 ether, "untouched");
    }

    function test_an_offence_is_held_against_the_operator_that_a_node_gets_later() public {
        uint256 key = 0xF2EE;
        address fresh = vm.addr(key);
        Disputes.SignedReceipt memory a = by(key, receiptOf(fresh, "order", 1));
        Disputes.SignedReceipt memory b = by(key, receiptOf(fresh, "order", 2));
        refuses(abi.encodeWithSelector(ProviderRegistry.NoOperator.selector, fresh));
        disputes.proveEquivocation(a, b);
        bytes memory signature = signed(key, consent(operator));
        vm.prank(operator);
        registry.delegate(fresh, signature);
        disputes.proveEquivocation(a, b);
        equal(registry.operatorOf(operator).stake, 400 ether, "the penalty");
    }

    function test_a_claim_for_other_units_than_the_receipts_costs_stake() public {
        Disputes.SignedClaim memory claim = claimed(1, leaves(3));
        for (uint32 i = 0; i < 3; i++) {
            disputes.proveBadLeaf(claim, proofOf(leaves(3), i), receipt(bytes32(uint256(i + 1)), 10 + i));
        }
        equal(registry.operatorOf(operator).stake, 200 ether, "an order a penalty");
        Disputes.SignedReceipt memory honest = receipt(bytes32(uint256(1)), 9);
        Disputes.Inclusion memory where = proofOf(leaves(3), 0);
        refuses(convictedAlready(Disputes.Offence.BadLeaf));
        disputes.proveBadLeaf(claim, where, honest);
        disputes.proveEquivocation(honest, receipt(bytes32(uint256(1)), 10));
        equal(registry.operatorOf(operator).stake, 100 ether, "another lie, another penalty");
    }

    function test_what_proves_no_bad_leaf_is_refused() public {
        Disputes.SignedClaim memory claim = claimed(1, leaves(3));
        Disputes.Inclusion memory where = proofOf(leaves(3), 0);
        Disputes.SignedReceipt memory good = receipt(bytes32(uint256(1)), 11);
        refuses(abi.encodeWithSelector(Disputes.NoOffence.selector));
        disputes.proveBadLeaf(claim, where, good);
        Disputes.SignedReceipt memory bad = by(CLIENT_KEY, receiptOf(client, bytes32(uint256(1)), 12));
        refuses(abi.encodeWithSelector(Disputes.NoOffence.selector));
        disputes.proveBadLeaf(claim, where, bad);
        bad = by(CLIENT_KEY, receiptOf(node, bytes32(uint256(1)), 12));
        refuses(abi.encodeWithSelector(Disputes.BadSignature.selector, client));
        disputes.proveBadLeaf(claim, where, bad);
        bad = receipt(bytes32(uint256(9)), 12);
        refuses(abi.encodeWithSelector(Disputes.NotInClaim.selector, bytes32(uint256(9))));
        disputes.proveBadLeaf(claim, where, bad);
        bad = receipt(bytes32(uint256(1)), 12);
        Disputes.SignedClaim memory forged = by(CLIENT_KEY, claim.claim);
        refuses(abi.encodeWithSelector(Disputes.BadSignature.selector, client));
        disputes.proveBadLeaf(forged, where, bad);
        where.units = 13;
        refuses(abi.encodeWithSelector(Disputes.NotInClaim.selector, bytes32(uint256(1))));
        disputes.proveBadLeaf(claim, where, bad);
        equal(registry.operatorOf(operator).stake, 500 ether, "untouched");
    }

    function test_a_claim_that_miscounts_its_tree_proves_nothing() public {
        Disputes.StageClaim memory claim = claimOf(node, 1, leaves(3));
        Disputes.Inclusion memory where = proofOf(leaves(3), 0);
        Disputes.SignedReceipt memory bad = receipt(bytes32(uint256(1)), 12);
        claim.units += 1;
        Disputes.SignedClaim memory wrong = by(NODE_KEY, claim);
        refuses(abi.encodeWithSelector(Disputes.NotInClaim.selector, bytes32(uint256(1))));
        disputes.proveBadLeaf(wrong, where, bad);
        claim.units -= 1;
        claim.tasks = 4;
        wrong = by(NODE_KEY, claim);
        refuses(abi.encodeWithSelector(Disputes.NotInClaim.selector, bytes32(uint256(1))));
        disputes.proveBadLeaf(wrong, where, bad);
    }

    function test_proofs_of_a_wrong_shape_are_refused() public {
        Disputes.SignedClaim memory claim = claimed(1, leaves(3));
        Disputes.SignedReceipt memory bad = receipt(bytes32(uint256(3)), 1);
        Disputes.Inclusion memory where = proofOf(leaves(3), 2);
        where.index = 3;
        refuses(abi.encodeWithSelector(MerkleSum.BadProof.selector));
        disputes.proveBadLeaf(claim, where, bad);
        where.index = 0;
        refuses(abi.encodeWithSelector(MerkleSum.BadProof.selector));
        disputes.proveBadLeaf(claim, where, bad);
        where = proofOf(leaves(3), 1);
        where.index = 2;
        refuses(abi.encodeWithSelector(MerkleSum.BadProof.selector));
        disputes.proveBadLeaf(claim, where, bad);
        where = proofOf(leaves(3), 2);
        where.siblings[0].sum = type(uint128).max;
        refuses(abi.encodeWithSignature("Panic(uint256)", 0x11));
        disputes.proveBadLeaf(claim, where, bad);
    }

    function test_an_order_in_two_claims_costs_stake_once() public {
        Disputes.SignedClaim memory first = claimed(1, leaves(3));
        Disputes.SignedClaim memory second = claimed(2, leaves(1));
        Disputes.Inclusion memory a = proofOf(leaves(3), 0);
        Disputes.Inclusion memory b = proofOf(leaves(1), 0);
        disputes.proveDuplicateClaim(bytes32(uint256(1)), first, a, second, b);
        equal(registry.operatorOf(operator).stake, 400 ether, "the penalty");
        refuses(convictedAlready(Disputes.Offence.DuplicateClaim));
        disputes.proveDuplicateClaim(bytes32(uint256(1)), second, b, first, a);
    }

    function test_an_order_twice_in_one_claim_costs_stake() public {
        Disputes.Leaf[] memory twice = leaves(4);
        twice[3] = twice[1];
        Disputes.SignedClaim memory claim = claimed(1, twice);
        disputes.proveDuplicateClaim(bytes32(uint256(2)), claim, proofOf(twice, 1), claim, proofOf(twice, 3));
        equal(registry.operatorOf(operator).stake, 400 ether, "the penalty");
    }

    function test_what_proves_no_duplicate_is_refused() public {
        bytes32 order = bytes32(uint256(1));
        Disputes.SignedClaim memory claim = claimed(1, leaves(3));
        Disputes.Inclusion memory where = proofOf(leaves(3), 0);
        refuses(abi.encodeWithSelector(Disputes.NoOffence.selector));
        disputes.proveDuplicateClaim(order, claim, where, claim, where);
        Disputes.SignedClaim memory other = by(CLIENT_KEY, claimOf(client, 2, leaves(3)));
        refuses(abi.encodeWithSelector(Disputes.NoOffence.selector));
        disputes.proveDuplicateClaim(order, claim, where, other, where);
        other = by(CLIENT_KEY, claimOf(node, 2, leaves(3)));
        refuses(abi.encodeWithSelector(Disputes.BadSignature.selector, client));
        disputes.proveDuplicateClaim(order, claim, where, other, where);
        refuses(abi.encodeWithSelector(Disputes.BadSignature.selector, client));
        disputes.proveDuplicateClaim(order, other, where, claim, where);
        Disputes.Inclusion memory elsewhere = proofOf(leaves(3), 1);
        refuses(abi.encodeWithSelector(Disputes.NotInClaim.selector, order));
        disputes.proveDuplicateClaim(order, claim, where, claim, elsewhere);
        equal(registry.operatorOf(operator).stake, 500 ether, "untouched");
    }

    function testFuzz_every_leaf_is_proven_and_no_other_index_holds_it(
        uint256 seed,
        uint8 size,
        uint8 place,
        uint8 other
    ) public {
        uint32 count = uint32(size) % 40 + 1;
        uint32 index = uint32(place) % count;
        Disputes.Leaf[] memory made = new Disputes.Leaf[](count);
        for (uint256 i = 0; i < count; i++) {
            made[i] =
                Disputes.Leaf(keccak256(abi.encode(seed, i)), uint64(uint256(keccak256(abi.encode(i, seed)))) / 64);
        }
        Disputes.SignedClaim memory claim = claimed(1, made);
        Disputes.SignedReceipt memory bad = receipt(made[index].orderHash, made[index].units + 1);
        Disputes.Inclusion memory where = proofOf(made, index);
        where.index = other;
        if (other != index) {
            try disputes.proveBadLeaf(claim, where, bad) {
                revert("a leaf stands at one index");
            } catch {}
        }
        where.index = index;
        disputes.proveBadLeaf(claim, where, bad);
        equal(registry.operatorOf(operator).convictions, 1, "convicted");
    }
}
